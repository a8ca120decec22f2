import pytest

from distill.html import tables


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (tables.decimals, 0.84249, "0.842"),
        (tables.decimals, -0.0004, "0.000"),
        (tables.decimals, -0.5, "−0.500"),
        (tables.signed, 0.0123, "+0.012"),
        (tables.signed, -0.0123, "−0.012"),
        (tables.signed, 0.0001, "0.000"),
        (tables.count, 12345, "12,345"),
        (tables.si, 2_493_504, "2.49 M"),
        (tables.si, 14_800_000_000, "14.8 G"),
        (tables.si, 984_120, "984 k"),
        (tables.si, 12, "12"),
        (tables.size, 9_981_220, "9.98 MB"),
        (tables.size, 3_950, "3.95 kB"),
        (tables.milliseconds, 6.4251, "6.43 ms"),
        (tables.milliseconds, 13_050, "13.1 s"),
        (tables.milliseconds, 1234.6, "1,235 ms"),
        (tables.milliseconds, 999.7, "1,000 ms"),
        (tables.milliseconds, 9999.6, "10,000 ms"),
        (tables.milliseconds, 2_345_678, "2,346 s"),
        (tables.milliseconds, 0.04, "0.04 ms"),
        (tables.milliseconds, 0.00001234, "0.0000123 ms"),
        (tables.milliseconds, 0, "0 ms"),
        (tables.milliseconds, 9.996, "10 ms"),
        (tables.milliseconds, 100.0, "100 ms"),
        (tables.size, 1_865_000_000, "1,865 MB"),
        (tables.size, 999_950, "1,000 kB"),
        (tables.si, 1_234_000_000_000, "1,234 G"),
        (tables.si, 999.7, "1 k"),
        (tables.si, 999_600, "1 M"),
        (tables.si, -1500, "-1.5 k"),
        (tables.percent, 12.345, "1,234 %"),
        (tables.percent, 0.00000123, "0.000123 %"),
        (tables.megabytes, 1890.4, "1,890 MB"),
        (tables.percent, 0.973, "97.3 %"),
        (tables.times, 99.7, "100×"),
        (tables.times, 4.26, "4.3×"),
        (tables.times, 9.96, "10×"),
        (tables.times, 1234.5, "1,234×"),
        (tables.times, 0.00004, "0.00004×"),
    ],
)
def test_written_for_people(write: object, value: float, text: str) -> None:
    assert write(value) == text  # type: ignore[operator]


def test_every_number_carries_its_exact_value() -> None:
    assert tables.data(0.1 + 0.2, tables.decimals) == '<data value="0.30000000000000004">0.300</data>'


def test_a_missing_number_says_why() -> None:
    assert (
        tables.data(None, tables.decimals, why="all <equal>") == '<span class="none" title="all &lt;equal&gt;">–</span>'
    )


def test_interval_or_the_reason_of_its_absence() -> None:
    values_of = {"value": 0.8, "low": 0.7, "high": 0.9, "reason": "", "interval_reason": ""}
    assert 'value="0.7"' in tables.with_interval(values_of)
    without = values_of | {"low": None, "high": None, "interval_reason": "2 groups"}
    assert 'title="2 groups"' in tables.with_interval(without)
    nothing = without | {"value": None, "reason": "constant"}
    assert "interval" not in tables.with_interval(nothing)
