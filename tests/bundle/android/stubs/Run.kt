// Runs modules' golden tests, and more. Lines come in, words between tabs, and one goes out for each:
//   FOLDER PACKAGE [PLAYED]                                        → "3 passed", or what failed; the
//       interpreter plays back what lies in the folder PLAYED, without it the golden files themselves
//   "picture" PACKAGE FILE WIDTH HEIGHT STRIDE ROTATION VALUES     → a sample of bytes in hexadecimal
//   "literals"                                                     → each one's UTF-16 in hexadecimal
import androidx.test.platform.app.InstrumentationRegistry
import java.io.File
import java.lang.reflect.InvocationTargetException
import java.nio.ByteBuffer
import org.json.JSONObject
import org.junit.Test
import org.tensorflow.lite.Interpreter

fun main() {
    for (line in generateSequence(::readlnOrNull)) {
        val words = line.split('\t')
        println(
            when (words[0]) {
                "picture" -> picture(words.drop(1))
                "literals" -> LITERALS.joinToString(",") { text -> text.map { "%04x".format(it.code) }.joinToString("") }
                else -> golden(File(words[0]), words[1], words.getOrNull(2))
            },
        )
    }
    System.exit(0) // models that a failed test left open have threads
}

private fun golden(module: File, name: String, played: String?): String {
    InstrumentationRegistry.module = module
    Interpreter.golden = played?.let(::File) ?: File(module, "src/androidTest/assets/$name")
    val spec = JSONObject(File(module, "src/main/assets/$name/model.json").readText())
    Interpreter.inputs = ids(spec, "inputs")
    Interpreter.outputs = ids(spec, "outputs")
    val type = Class.forName("edgekit.$name.GoldenTest")
    val tests = type.methods.filter { it.isAnnotationPresent(Test::class.java) }.sortedBy { it.name }
    for (test in tests) {
        try {
            test.invoke(type.getDeclaredConstructor().newInstance())
        } catch (failure: InvocationTargetException) {
            return "${test.name}: ${failure.targetException}"
        }
    }
    return "${tests.size} passed"
}

private fun ids(spec: JSONObject, ends: String): List<String> {
    val found = if (spec.has(ends)) spec.getJSONArray(ends) else return listOf()
    return List(found.length()) { found.getJSONObject(it).getString("id") }
}

private fun picture(words: List<String>): String {
    val (name, file) = words
    val (width, height, stride, rotation) = words.drop(2).map { it.toInt() }
    val pixels = ByteBuffer.wrap(File(file).readBytes())
    val type = Class.forName("edgekit.$name.Picture")
    val made = type.constructors.single().newInstance(pixels, width, height, stride, rotation)
    val sample = ByteArray(words[6].toInt())
    type.getMethod("into", ByteArray::class.java).invoke(made, sample)
    return sample.joinToString("") { "%02x".format(it) }
}
