import pytest

from keras_lrsched.precision import E2M1, FORMATS, INT4, Format, get_format


def test_names():
    assert set(FORMATS) == {
        *(f"FP8_{e}{s}" for e in ("E4M3", "E5M2") for s in ("", "_ROW", "_BLOCK128", "_BLOCK128X128")),
        *("MXFP8_E4M3", "MXFP8_E5M2", "MXFP6_E2M3", "MXFP6_E3M2", "MXFP4", "MXINT8"),
        *("NVFP4", "NVFP4_2D", "NVFP4_FOUR_OVER_SIX"),
        *(f"INT{b}{s}" for b in (8, 4) for s in ("", "_CHANNEL", "_GROUP128", "_BLOCK32X32")),
    }
    assert all(one.name == name for name, one in FORMATS.items())


@pytest.mark.parametrize(
    ("name", "bits"),
    [("MXFP8_E4M3", 8.25), ("MXFP6_E3M2", 6.25), ("MXFP4", 4.25), ("MXINT8", 8.25), ("NVFP4", 4.5), ("INT4_GROUP128", 4.25)],
)
def test_bits_per_value(name, bits):
    assert get_format(name).bits_per_value == bits


def test_changes():
    assert get_format("MXFP4", scale_rule="even").scale_rule == "even"
    own = Format("OWN", INT4, (1, 64), "float32")
    assert get_format(own) is not None
    assert get_format(own) == own
    assert own.scale_rule == "exact"


@pytest.mark.parametrize("name", ["FP4", None, 4])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(ValueError, match=r"one of FP8_E4M3, .*NVFP4_2D.*INT4_BLOCK32X32\. Received: format="):
        get_format(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_rule": "exact"}, "`scale_rule` must be one of 'floor'"),
        ({"scale": "e5m3"}, "`scale` must be one of"),
        ({"element": "E2M1"}, "`element` must be an `Element`"),
        ({"block": (0, 32)}, "rows of the block"),
        ({"block": (1, 0)}, "columns of the block"),
        ({"block": (1, 3)}, "a multiple of 2"),
        ({"block": (16, None)}, "how many columns"),
    ],
)
def test_bad_formats(changes, message):
    with pytest.raises(ValueError, match=message):
        Format(**{"name": "OWN", "element": E2M1, "block": (1, 32), "scale": "e8m0", **changes})
