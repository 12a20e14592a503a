// Runs modules' golden tests, and more. Lines come in, words between tabs, and one goes out for each:
//   FOLDER PACKAGE [PLAYED]                                        → "3 passed", or what failed; the
//       interpreter plays back what lies in the folder PLAYED, without it the golden files themselves
//   "picture" PACKAGE FILE WIDTH HEIGHT STRIDE ROTATION VALUES     → a sample of bytes in hexadecimal
//   "boxes" PACKAGE BOXES SCORES CONFIDENCE                        → rows of a detector's answer, from files of
//       floats: label, score, left, top, right, bottom
//   "back" PACKAGE FILE WIDTH HEIGHT STRIDE ROTATION VALUES        → where the input's corners lie in the picture
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
                "boxes" -> boxes(words.drop(1))
                "back" -> back(words.drop(1))
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

private fun picture(words: List<String>): String = into(words).first.joinToString("") { "%02x".format(it) }

/** The sample, and what a detector's picture says of how it was fitted. */
private fun into(words: List<String>): Pair<ByteArray, Any?> {
    val (name, file) = words
    val (width, height, stride, rotation) = words.drop(2).map { it.toInt() }
    val pixels = ByteBuffer.wrap(File(file).readBytes())
    val type = Class.forName("edgekit.$name.Picture")
    val made = type.constructors.single().newInstance(pixels, width, height, stride, rotation)
    val sample = ByteArray(words[6].toInt())
    val fitted = type.getMethod("into", ByteArray::class.java).invoke(made, sample)
    return Pair(sample, fitted)
}

private fun boxes(words: List<String>): String {
    val (name, boxes, scores, confidence) = words
    val type = Class.forName("edgekit.$name.Boxes")
    val floats = FloatArray::class.java
    val given = type.getMethod("of", floats, floats, Float::class.javaPrimitiveType)
    val found = given.invoke(type.getField("INSTANCE").get(null), floats(boxes), floats(scores), confidence.toFloat())
    return (found as List<*>).joinToString(";") { told(it!!) }
}

private fun told(box: Any): String = listOf("Label", "Score", "Left", "Top", "Right", "Bottom").joinToString(",") {
    box.javaClass.getMethod("get$it").invoke(box).toString()
}

private fun back(words: List<String>): String {
    val fitted = into(words).second!!
    val type = Class.forName("edgekit.${words[0]}.Box")
    val box = type.constructors.first { it.parameterCount == 6 }.newInstance(0f, 0f, 10f, 10f, "x", 1f)
    return told(fitted.javaClass.getMethod("back", type).invoke(fitted, box))
}

private fun floats(file: String): FloatArray {
    val bytes = ByteBuffer.wrap(File(file).readBytes()).order(java.nio.ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(bytes.remaining()) { bytes.get(it) }
}
