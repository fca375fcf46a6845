"""Files that are nearly right: a valid one, cut, doubled, or with bytes and words of trouble in it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

# What readers have stumbled over: signs of formats, ends of lines that are none, numbers beyond every type, names of places.
TROUBLE = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\r\n", b"\n", b"\x0b", b"\x1c", b"\x85", b"\xe2\x80\xa8", b'"', b"'", b",",
    b"\t", b"|", b";", b":", b"{", b"}", b"[", b"]", b"[" * 2000, b"{" * 2000, b"&a ", b"*a", b"<<: *a", b"!!python/object:os.system ",
    b"!!binary ", b"!!timestamp 9999-99-99", b"? ", b"- ", b"---\n", b"...\n", b"# ", b"null", b"~", b"true", b"NaN", b"-Infinity", b"1e999",
    b"-1", b"0", b"1_000", b"0x1f", b"9" * 5000, b"1e-400", b"18446744073709551616", b"\\ud800", b"\\u0000", b"../", b"/etc/passwd", b"~/",
    b"*", b"%s", b"{}", b"$HOME", b"2024-02-30", b"12:30:61", b"\xed\xa0\x80", "é".encode(), "\u202e".encode(), "😀".encode(), b"a" * 5000,
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], most: int = 4) -> bytes:
    """Draw one of the valid files, changed in a few places or in none."""
    content = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(0, most))):
        how = draw(st.integers(0, 6))
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(1, 24))
        if how == 0:
            content[at:at] = draw(st.sampled_from(TROUBLE))
        elif how == 1:
            content[at : at + length] = draw(st.sampled_from(TROUBLE))
        elif how == 2:
            del content[at : at + length]
        elif how == 3:
            content[at:at] = content[at : at + length]
        elif how == 4:
            del content[at:]
        elif how == 5 and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        else:
            other = draw(st.integers(0, len(content)))
            content[at : at + length] = content[other : other + length]
    return bytes(content)


TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(alphabet=" \t\r\n\"'|,;[]{}\\\x00\x0b\x1c\x85\u2028\ufeffab1", max_size=12),
    st.sampled_from([t.decode("utf8", "replace") for t in TROUBLE if len(t) < 100]),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.integers(-(10**30), 10**30), TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
