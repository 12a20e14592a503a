package org.tensorflow.lite

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Plays back: the answer to the golden input that is the nearest, if it is near. */
class Interpreter(model: ByteBuffer, options: Options) : AutoCloseable {
    class Options {
        fun setNumThreads(threads: Int): Options = also { require(threads > 0) }
    }

    private var open = true

    init {
        require(model.isDirect && model.remaining() > 4)
        options.setNumThreads(1)
    }

    fun run(input: Any, output: Any) {
        check(open)
        input as ByteBuffer
        output as ByteBuffer
        for (buffer in listOf(input, output)) {
            check(buffer.isDirect && buffer.order() == ByteOrder.nativeOrder() && buffer.position() == 0)
        }
        val given = ByteArray(input.remaining()).also { input.duplicate().get(it) }
        val inputs = recorded("inputs.bin", given.size)
        val nearest = inputs.indices.minBy { number -> given.indices.count { inputs[number][it] != given[it] } }
        output.put(recorded("outputs.bin", output.remaining())[nearest])
    }

    /** The same of several: as many as the folder has files for, in the order of [inputs] and [outputs]. */
    fun runForMultipleInputsOutputs(given: Array<Any>, made: Map<Int, Any>) {
        check(open && given.size == inputs.size && made.keys == outputs.indices.toSet())
        val buffers = given.map { it as ByteBuffer }
        val answers = outputs.indices.map { made.getValue(it) as ByteBuffer }
        for (buffer in buffers + answers) {
            check(buffer.isDirect && buffer.order() == ByteOrder.nativeOrder() && buffer.position() == 0)
        }
        val bytes = buffers.map { buffer -> ByteArray(buffer.remaining()).also { buffer.duplicate().get(it) } }
        val known = inputs.zip(bytes) { name, one -> recorded("inputs_$name.bin", one.size) }
        val nearest = known[0].indices.minBy { number ->
            bytes.indices.sumOf { at -> bytes[at].indices.count { known[at][number][it] != bytes[at][it] } }
        }
        outputs.zip(answers) { name, one -> one.put(recorded("outputs_$name.bin", one.remaining())[nearest]) }
    }

    override fun close() {
        open = false
    }

    companion object {
        var golden: File = File(".")
        var inputs = listOf<String>()
        var outputs = listOf<String>()

        private fun recorded(name: String, size: Int): List<ByteArray> {
            val all = File(golden, name).readBytes()
            return List(all.size / size) { all.copyOfRange(it * size, (it + 1) * size) }
        }
    }
}
