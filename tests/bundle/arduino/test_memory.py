"""RAM and flash against a device's, before anything is written."""

import pytest

from edgekit.bundle.targets.arduino.memory import Needs, Road, check
from edgekit.devices.device import Device, load_device
from edgekit.errors import ExportError

TFLM = Road("TFLM", {"arena": 900, "one raw sample": 100}, {"model": 5000})
C99 = Road("C99", {"arena": 500}, {"weights and parameters": 4000})


def _device(ram, flash):
    return Device(name="tiny", transport="none", arch="cortex-m", memory_bytes=ram, flash_bytes=flash)


def test_what_fits_is_silent():
    assert check(Needs((TFLM, C99), 900, 1), _device(1000, 5000)) == ()
    assert check(Needs((TFLM, C99), 900, 1), load_device("mcu-cortex-m4")) == ()


def test_a_road_that_fits_is_enough():
    (warning,) = check(Needs((TFLM, C99), 900, 1), _device(999, 4999))
    assert warning == (
        "TFLM doesn't fit tiny: 1,000 bytes of RAM are 1 too many, 5,000 bytes of flash are 1 too many"
    )


def test_nothing_fits():
    with pytest.raises(ExportError, match="doesn't fit this device") as error:
        check(Needs((TFLM, C99), 900, 1), _device(400, 10_000))
    assert "C99: 500 bytes of RAM are 100 too many" in error.value.got
    assert "TFLM: 1,000 bytes of RAM are 600 too many" in error.value.got
    assert "speedup" in error.value.next


def test_an_unknown_size_is_no_budget():
    assert check(Needs((TFLM,), 900, 1), _device(None, None)) == ()
