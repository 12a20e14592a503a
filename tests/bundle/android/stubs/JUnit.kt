package org.junit

import kotlin.math.abs

annotation class Test

object Assert {
    @JvmStatic
    fun assertEquals(expected: Any?, actual: Any?) = assertEquals("", expected, actual)

    @JvmStatic
    fun assertEquals(message: String, expected: Any?, actual: Any?) =
        assertTrue("$message: expected $expected, got $actual", expected == actual)

    @JvmStatic
    fun assertEquals(message: String, expected: Double, actual: Double, delta: Double) =
        assertTrue("$message: expected $expected, got $actual", abs(expected - actual) <= delta)

    @JvmStatic
    fun assertTrue(message: String, condition: Boolean) {
        if (!condition) throw AssertionError(message)
    }
}
