package android.graphics

object PixelFormat {
    const val RGBA_8888 = 1
}
