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

    override fun close() {
        open = false
    }

    companion object {
        var golden: File = File(".")

        private fun recorded(name: String, size: Int): List<ByteArray> {
            val all = File(golden, name).readBytes()
            return List(all.size / size) { all.copyOfRange(it * size, (it + 1) * size) }
        }
    }
}
