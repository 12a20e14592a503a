package androidx.test.platform.app

import android.content.Context
import java.io.File

/** [context] is the test's own, with the golden files; [targetContext] that of what is tested. */
class Instrumentation(val context: Context, val targetContext: Context)

object InstrumentationRegistry {
    var module: File = File(".")

    @JvmStatic
    fun getInstrumentation() = Instrumentation(
        Context(File(module, "src/androidTest/assets")),
        Context(File(module, "src/main/assets")),
    )
}
