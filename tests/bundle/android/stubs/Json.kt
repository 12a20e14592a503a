// The part of org.json, which every Android has, that the generated code calls.
package org.json

class JSONObject internal constructor(private val members: Map<String, Any?>) {
    constructor(text: String) : this((Reader(text).value() as JSONObject).members)

    fun getJSONObject(name: String) = members.getValue(name) as JSONObject

    fun getJSONArray(name: String) = members.getValue(name) as JSONArray

    fun getString(name: String) = members.getValue(name) as String

    fun has(name: String) = name in members

    fun getInt(name: String) = (members.getValue(name) as Double).toInt()

    fun getDouble(name: String) = members.getValue(name) as Double
}

class JSONArray internal constructor(private val items: List<Any?>) {
    fun length() = items.size

    fun getString(index: Int) = items[index] as String

    fun getJSONObject(index: Int) = items[index] as JSONObject

    fun getBoolean(index: Int) = items[index] as Boolean
}

private class Reader(private val text: String) {
    private var at = 0

    fun value(): Any? = when (next()) {
        '{' -> JSONObject(items('}') { string().also { check(next() == ':') }.let { at++; it to value() } }.toMap())
        '[' -> JSONArray(items(']') { value() })
        '"' -> string()
        't' -> true.also { at += 4 }
        'f' -> false.also { at += 5 }
        'n' -> null.also { at += 4 }
        else -> number()
    }

    private fun next(): Char {
        while (text[at].isWhitespace()) at++
        return text[at]
    }

    private fun <T> items(end: Char, item: () -> T): List<T> {
        val found = mutableListOf<T>()
        at++
        while (next() != end) {
            found += item()
            if (next() == ',') at++
            next()
        }
        at++
        return found
    }

    private fun string(): String {
        val made = StringBuilder()
        at++
        while (text[at] != '"') {
            if (text[at] != '\\') {
                made.append(text[at++])
                continue
            }
            when (val kind = text[at + 1]) {
                'u' -> made.append(text.substring(at + 2, at + 6).toInt(16).toChar()).also { at += 4 }
                'n' -> made.append('\n')
                'r' -> made.append('\r')
                't' -> made.append('\t')
                'b' -> made.append('\b')
                'f' -> made.append('\u000c')
                else -> made.append(kind)
            }
            at += 2
        }
        at++
        return made.toString()
    }

    private fun number(): Double {
        val start = at
        while (text[at] in "+-.eE0123456789") at++
        return text.substring(start, at).toDouble()
    }
}
