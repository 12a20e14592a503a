// What the generated code calls of Android, as small as it gets: assets come out of a folder.
package android.content

import android.content.res.AssetManager
import java.io.File

class Context(folder: File) {
    val assets = AssetManager(folder)
}
