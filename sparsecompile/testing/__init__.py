"""Laws that every structure, codec, pass and template keeps, and strategies to test them with.

Needs hypothesis: `pip install hypothesis`. A plug-in's tests run the same laws as the
built-ins':

    @given(weights(MyStructure()))
    def test_round_trip(weight):
        check_format(Format(MyStructure(), Float()), weight)
"""

from sparsecompile.testing.laws import SPECIAL_VALUES, assert_no_worse, check_format, weights
from sparsecompile.testing.pass_laws import apply_passes, captured, check_passes, small_models

__all__ = [
    "SPECIAL_VALUES",
    "apply_passes",
    "assert_no_worse",
    "captured",
    "check_format",
    "check_passes",
    "small_models",
    "weights",
]
