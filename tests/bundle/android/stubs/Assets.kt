package android.content.res

import java.io.Closeable
import java.io.File
import java.io.FileDescriptor
import java.io.FileInputStream
import java.io.InputStream

class AssetManager(private val folder: File) {
    fun open(path: String): InputStream = FileInputStream(File(folder, path))

    fun openFd(path: String) = AssetFileDescriptor(FileInputStream(File(folder, path)), File(folder, path).length())
}

class AssetFileDescriptor(private val stream: FileInputStream, val declaredLength: Long) : Closeable {
    val startOffset = 0L
    val fileDescriptor: FileDescriptor get() = stream.fd

    override fun close() = stream.close()
}
