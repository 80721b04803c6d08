"""Blocks of every codec: a real broker's, our own, broken ones, and bombs."""

import base64
import contextlib
import gzip
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import lz4.frame
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pylog._compression import CODEC_NAMES, CODECS, XERIAL_MAGIC, check_codec, compress, decompress
from pylog._errors import UnsupportedCodecError

cramjam = pytest.importorskip("cramjam")

MIB = 1 << 20
COMPRESSED = sorted(set(CODECS) - {"none"})
SEED = int(os.environ.get("PYLOG_SEED", "20251122"))
TEXT = b"".join(b'{"id": %d, "user": "alice", "amount": %d}' % (i, i * 7919 % 1000) for i in range(5000))


def unpack(codec, data, bytes_max=64 * MIB):
    return bytes(decompress(CODECS[codec], data, bytes_max=bytes_max))


def lz4_frame(data, **options):
    compressor = lz4.frame.LZ4FrameCompressor(**options)
    return compressor.begin() + compressor.compress(data) + compressor.flush()


def zstd_unsized(data):
    compressor = cramjam.zstd.Compressor(level=3)
    compressor.compress(data)
    return bytes(compressor.finish())


def xerial(*chunks):
    parts = [b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)]
    for chunk in chunks:
        parts += struct.pack(">i", len(chunk)), chunk
    return b"".join(parts)


def snappy_raw(data):
    return bytes(cramjam.snappy.compress_raw(data))


# ---- what a real broker wrote


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    if "PYLOG_GOLDEN" in os.environ:
        return Path(os.environ["PYLOG_GOLDEN"])
    packed = Path(__file__).parents[1] / "golden" / "kafka-4.3.1.tar.xz"
    if not packed.exists():
        pytest.skip("no golden data")
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(packed) as tar:
        tar.extractall(folder, filter="data")
    return folder


def batches(path):
    log = path.read_bytes()
    at = 0
    while at < len(log):
        base_offset, length = struct.unpack_from(">qi", log, at)
        attributes, record_count = struct.unpack_from(">h", log, at + 21)[0], struct.unpack_from(">i", log, at + 57)[0]
        yield base_offset, attributes, record_count, log[at + 61 : at + 12 + length]
        at += 12 + length


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at


def nullable(data, at):
    length, at = varint(data, at)
    return (None, at) if length < 0 else (data[at : at + length], at + length)


def records(base_offset, record_count, data):
    at = 0
    for _ in range(record_count):
        length, at = varint(data, at)
        end = at + length
        _, at = varint(data, at + 1)
        offset_delta, at = varint(data, at)
        key, at = nullable(data, at)
        value, at = nullable(data, at)
        yield base_offset + offset_delta, key, value
        at = end
    assert at == len(data)


def notation(field):
    """How expected/*.jsonl writes keys and values."""
    if field is None:
        return None
    if len(field) > 512:
        return f"sha256:{len(field)}:{hashlib.sha256(field).hexdigest()}"
    if field.isascii() and field.decode().isprintable() and not field.startswith((b"b64:", b"sha256:")):
        return field.decode()
    return "b64:" + base64.b64encode(field).decode()


def framing(codec, block):
    if codec == "snappy":
        return "xerial" if block[:8] == XERIAL_MAGIC else "raw"
    return codec


@pytest.mark.parametrize(
    ("topic", "framings"),
    [
        ("codec-none-0", {"none"}),
        ("codec-gzip-0", {"none", "gzip"}),
        ("codec-snappy-0", {"none", "xerial", "raw"}),
        ("codec-lz4-0", {"none", "lz4"}),
        ("codec-zstd-0", {"none", "zstd"}),
        ("compact-lz4-0", {"none", "lz4"}),
        ("odd-0", None),
    ],
)
def test_every_record_of_a_real_broker_is_read(golden, topic, framings):
    found, seen = [], set()
    for path in sorted((golden / "clean" / topic).glob("*.log")):
        for base_offset, attributes, record_count, block in batches(path):
            codec = CODEC_NAMES[attributes & 7]
            seen.add(framing(codec, block))
            if record_count:
                found += records(base_offset, record_count, unpack(codec, block))
    lines = (golden / "expected" / f"{topic}.jsonl").read_text().splitlines()
    expected = [(record["offset"], record["key"], record["value"]) for record in map(json.loads, lines[1:])]
    assert [(offset, notation(key), notation(value)) for offset, key, value in found] == expected
    if framings is not None:
        assert seen == framings


# ---- round trips and what others read


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("data", [b"", b"x", TEXT, bytes(MIB), random.Random(SEED).randbytes(3 * MIB + 1)], ids=len)
def test_a_block_gives_back_its_bytes(codec, data):
    assert unpack(codec, compress(CODECS[codec], data), bytes_max=len(data)) == data


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.lists(st.binary(max_size=200)).map(lambda parts: b"".join(part * 50 for part in parts)))
def test_any_block_gives_back_its_bytes(codec, data):
    assert unpack(codec, compress(CODECS[codec], data), bytes_max=len(data)) == data


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("container", [bytearray, memoryview, lambda data: memoryview(b"--" + data)[2:]])
def test_any_buffer_is_taken(codec, container):
    block = compress(CODECS[codec], container(TEXT))
    assert unpack(codec, container(block)) == TEXT


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_another_library_reads_our_blocks(codec):
    pyarrow = pytest.importorskip("pyarrow")
    assert pyarrow.decompress(compress(CODECS[codec], TEXT), len(TEXT), codec=codec, asbytes=True) == TEXT


def test_snappy_blocks_are_framed_as_java_does():
    pyarrow = pytest.importorskip("pyarrow")
    block = compress(CODECS["snappy"], TEXT)
    assert block[:16] == bytes.fromhex("82534e41505059000000000100000001")
    at, chunks = 16, []
    while at < len(block):
        (size,) = struct.unpack_from(">i", block, at)
        chunk = block[at + 4 : at + 4 + size]
        chunks.append(pyarrow.decompress(chunk, cramjam.snappy.decompress_raw_len(chunk), codec="snappy", asbytes=True))
        at += 4 + size
    assert b"".join(chunks) == TEXT
    assert {len(chunk) for chunk in chunks[:-1]} == {32768}


@pytest.mark.parametrize("size", [1, 1000, 65536, 65537, 5 * MIB])
def test_lz4_blocks_are_independent_since_java_reads_no_others(size):
    info = lz4.frame.get_frame_info(compress(CODECS["lz4"], bytes(size)))
    assert not info["block_linked"]
    assert info["content_size"] == size


# ---- framings that other producers write


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("block_size", [4, 5, 6, 7])
@pytest.mark.parametrize("checksums", [False, True])
@pytest.mark.parametrize("sized", [False, True])
def test_any_lz4_frame_is_read(linked, block_size, checksums, sized):
    sums = {"content_checksum": checksums, "block_checksum": checksums}
    options = {"block_linked": linked, "block_size": block_size, **sums}
    data = TEXT + random.Random(SEED).randbytes(300_000) + TEXT
    block = lz4.frame.compress(data, store_size=True, **options) if sized else lz4_frame(data, **options)
    assert unpack("lz4", block, bytes_max=len(data)) == data


def test_lz4_frames_of_many_small_blocks_are_read():
    compressor = lz4.frame.LZ4FrameCompressor(auto_flush=True)
    block = compressor.begin() + b"".join(compressor.compress(b"%d" % i) for i in range(3000)) + compressor.flush()
    assert unpack("lz4", block) == b"".join(b"%d" % i for i in range(3000))


SKIPPABLE = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"


@pytest.mark.parametrize(
    ("codec", "pieces"),
    [
        ("gzip", [gzip.compress(TEXT), gzip.compress(b""), gzip.compress(b"tail")]),
        ("lz4", [lz4.frame.compress(TEXT), SKIPPABLE, lz4.frame.compress(b"tail"), SKIPPABLE]),
        ("zstd", [zstd_unsized(TEXT), SKIPPABLE, compress(4, b"tail"), SKIPPABLE]),
        ("snappy", [xerial(snappy_raw(TEXT)), xerial(snappy_raw(b"tail"))]),
    ],
)
def test_frames_that_follow_one_another_are_read_as_one_block(codec, pieces):
    assert unpack(codec, b"".join(pieces), bytes_max=len(TEXT) + 4) == TEXT + b"tail"


def test_a_raw_snappy_block_is_read():
    assert unpack("snappy", snappy_raw(TEXT)) == TEXT
    assert unpack("snappy", b"\x00") == b""


@pytest.mark.parametrize("level", [1, 3, 19])
@pytest.mark.parametrize("data", [b"", b"a", TEXT, bytes(5 * MIB), random.Random(SEED).randbytes(400_000)], ids=len)
def test_zstd_frames_with_and_without_their_size_are_read(level, data):
    assert unpack("zstd", bytes(cramjam.zstd.compress(data, level=level)), bytes_max=len(data)) == data
    assert unpack("zstd", zstd_unsized(data), bytes_max=len(data)) == data


def test_many_small_gzip_members_take_linear_time():
    block = gzip.compress(b"x") * 100_000  # 2 MB: with a copy of the rest for each member these were 100 GB
    assert unpack("gzip", block) == b"x" * 100_000


# ---- limits


@pytest.mark.parametrize("codec", CODECS)
def test_one_byte_more_than_allowed_is_refused(codec):
    block = compress(CODECS[codec], TEXT)
    assert unpack(codec, block, bytes_max=len(TEXT)) == TEXT
    with pytest.raises(ValueError, match=f"{codec} block: gives more than {len(TEXT) - 1} bytes"):
        unpack(codec, block, bytes_max=len(TEXT) - 1)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_frames_are_limited_together(codec):
    block = compress(CODECS[codec], TEXT) * 3
    assert unpack(codec, block, bytes_max=3 * len(TEXT)) == 3 * TEXT
    with pytest.raises(ValueError, match="gives more than"):
        unpack(codec, block, bytes_max=3 * len(TEXT) - 1)


GIB = 1 << 30


def zstd_zeros(header):
    """A frame of 1 GiB of zeros, in blocks that repeat one byte 128 KiB times."""
    block = struct.pack("<I", (1 << 17) << 3 | 1 << 1)[:3] + b"\x00"
    last = struct.pack("<I", (1 << 17) << 3 | 1 << 1 | 1)[:3] + b"\x00"
    return b"\x28\xb5\x2f\xfd" + header + block * (GIB // (1 << 17) - 1) + last


def gzip_zeros():
    compressor = zlib.compressobj(1, wbits=31)
    return b"".join([*(compressor.compress(bytes(16 * MIB)) for _ in range(64)), compressor.flush()])


def lz4_zeros(*, sized=False, **options):
    compressor = lz4.frame.LZ4FrameCompressor(**options)
    begin = compressor.begin(source_size=GIB if sized else 0)
    return begin + b"".join(compressor.compress(bytes(16 * MIB)) for _ in range(64)) + compressor.flush()


def snappy_zeros(size):
    """The shortest raw block of zeros: one literal, then copies of 64 bytes from one byte back."""
    preamble, rest = bytearray(), size
    while rest >= 0x80:
        preamble.append(rest & 0x7F | 0x80)
        rest >>= 7
    preamble.append(rest)
    copies, left = divmod(size - 1, 64)
    rest_copy = bytes([(left - 1) << 2 | 2, 1, 0]) if left else b""
    return bytes(preamble) + b"\x00\x00" + b"\xfe\x01\x00" * copies + rest_copy


BOMBS = {
    "gzip": ("gzip", gzip_zeros),
    "lz4, independent blocks": ("lz4", lambda: lz4_zeros(block_linked=False)),
    "lz4 with its size": ("lz4", lambda: lz4_zeros(sized=True, block_linked=False)),
    "lz4, linked blocks of 4 MiB": ("lz4", lambda: lz4_zeros(block_linked=True, block_size=7)),
    "zstd without its size": ("zstd", lambda: zstd_zeros(b"\x00\x50")),
    "zstd with its size": ("zstd", lambda: zstd_zeros(b"\xc0\x50" + struct.pack("<Q", GIB))),
    "zstd with a false size": ("zstd", lambda: zstd_zeros(b"\xc0\x50" + struct.pack("<Q", 10))),
    "zstd with the largest window": ("zstd", lambda: zstd_zeros(b"\x00\x88")),
    "zstd with one window": ("zstd", lambda: zstd_zeros(b"\xa0" + struct.pack("<I", GIB))),
    "snappy, one raw block": ("snappy", lambda: snappy_zeros(GIB)),
    "snappy, xerial": ("snappy", lambda: xerial(*[snappy_zeros(32768)] * (GIB // 32768))),
}

MEASURE = """
import re, sys
from pathlib import Path
from pylog._compression import compress, decompress
codec, block = int(sys.argv[1]), Path(sys.argv[2]).read_bytes()
decompress(codec, compress(codec, bytes(1 << 16)), bytes_max=1 << 20)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
try:
    decompress(codec, block, bytes_max=1 << 20)
except ValueError:
    print(peak() - before)
else:
    print("not refused")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_gibibyte_of_zeros_is_refused_in_little_memory(bomb, tmp_path):
    codec, make = BOMBS[bomb]
    path = tmp_path / "bomb"
    path.write_bytes(make())
    command = [sys.executable, "-c", MEASURE, str(CODECS[codec]), str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert said != "not refused"
    assert int(said) < 16 * 1024, f"{said} KiB more at the peak"


@pytest.mark.parametrize(
    "make",
    [
        lambda n: zstd_zeros(b"\x00\x50")[: 6 + 4 * (n >> 17) - 4] + struct.pack("<I", 1 << 20 | 3)[:3] + b"\x00",
        lambda n: (
            zstd_zeros(b"\xc0\x50" + struct.pack("<Q", n))[: 14 + 4 * (n >> 17) - 4]
            + struct.pack("<I", 1 << 20 | 3)[:3]
            + b"\x00"
        ),
    ],
    ids=["without size", "with size"],
)
def test_frames_made_as_the_bombs_are_do_decompress_when_allowed(make):
    assert unpack("zstd", make(MIB), bytes_max=MIB) == bytes(MIB)


@pytest.mark.parametrize("size", [1, 2, 65, 66, 32768, MIB])
def test_the_densest_snappy_blocks_are_not_taken_for_broken(size):
    assert unpack("snappy", snappy_zeros(size), bytes_max=size) == bytes(size)


# ---- broken blocks


SAMPLES = {
    "gzip": ("gzip", gzip.compress(TEXT[:20_000])),
    "lz4": ("lz4", compress(3, TEXT[:20_000])),
    "lz4 linked, unsized": ("lz4", lz4_frame(TEXT[:200_000], block_linked=True)),
    "lz4 with checksums": ("lz4", lz4.frame.compress(TEXT[:20_000], content_checksum=True, block_checksum=True)),
    "zstd": ("zstd", compress(4, TEXT[:20_000])),
    "zstd unsized": ("zstd", zstd_unsized(TEXT[:200_000])),
    "snappy raw": ("snappy", snappy_raw(TEXT[:20_000])),
    "snappy xerial": ("snappy", compress(2, TEXT[:100_000])),
}


@pytest.mark.parametrize("sample", [name for name in SAMPLES if name != "snappy xerial"])
def test_every_cut_is_noticed(sample):
    codec, block = SAMPLES[sample]
    for end in [*range(min(len(block), 300)), *range(300, len(block), 37), *range(len(block) - 12, len(block))]:
        with pytest.raises(ValueError, match=f"{codec} block: "):
            unpack(codec, block[:end])


def test_every_cut_within_a_xerial_chunk_is_noticed():
    block = xerial(snappy_raw(TEXT[:3000]), snappy_raw(b"tail"))
    boundaries = {16, 16 + 4 + len(snappy_raw(TEXT[:3000]))}
    for end in set(range(len(block))) - boundaries:
        with pytest.raises(ValueError, match="snappy block: "):
            unpack("snappy", block[:end])


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("tail", [b"x", b"garbage", bytes(40)])
def test_bytes_behind_the_last_frame_are_noticed(sample, tail):
    codec, block = SAMPLES[sample]
    with pytest.raises(ValueError, match=f"{codec} block: "):
        unpack(codec, block + tail)


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("bytes_max", [100, 25_000, MIB])
def test_flipped_blocks_raise_value_error_or_stay_within_the_limit(sample, bytes_max):
    codec, block = SAMPLES[sample]
    chance = random.Random(f"{SEED} {sample} {bytes_max}")
    for _ in range(400):
        broken = bytearray(block)
        for _ in range(chance.choice((1, 1, 2, 20))):
            at = chance.randrange(chance.choice((32, len(broken))))
            broken[at] = chance.choice((broken[at] ^ 1 << chance.randrange(8), chance.randrange(256), 0, 255))
        if chance.random() < 0.2:
            del broken[chance.randrange(len(broken)) :]
        try:
            size = len(unpack(codec, broken, bytes_max=bytes_max))
        except ValueError:
            continue
        assert size <= bytes_max, f"seed {SEED}: {broken.hex()}"


@pytest.mark.parametrize("codec", COMPRESSED)
@given(start=st.sampled_from([block[:n] for _, block in SAMPLES.values() for n in (0, 4, 7, 16)]), rest=st.binary())
def test_noise_raises_value_error_or_stays_within_the_limit(codec, start, rest):
    with contextlib.suppress(ValueError):
        assert len(unpack(codec, start + rest, bytes_max=1000)) <= 1000


@pytest.mark.parametrize("stated", [0, 10, len(TEXT) - 1, len(TEXT) + 1, 1 << 63])
def test_an_lz4_frame_that_states_a_false_size_is_broken(stated):
    block = bytearray(lz4.frame.compress(TEXT, store_size=True))
    struct.pack_into("<Q", block, 6, stated)
    block[14] = xxhash.xxh32_intdigest(bytes(block[4:14])) >> 8 & 0xFF
    with pytest.raises(ValueError, match="lz4 block: frame at byte 0"):
        unpack("lz4", block)


@pytest.mark.parametrize("codec", COMPRESSED)
def test_no_bytes_are_no_block(codec):
    with pytest.raises(ValueError, match=f"{codec} block: "):
        unpack(codec, b"")


# ---- which codecs there are


def test_names_and_numbers_are_kafkas():
    assert CODECS == {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
    assert CODEC_NAMES == {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


@pytest.mark.parametrize("codec", [-1, 5, 7])
def test_an_unknown_codec_is_named(codec):
    for use in (check_codec, lambda c: compress(c, b""), lambda c: decompress(c, b"", bytes_max=1)):
        with pytest.raises(UnsupportedCodecError, match=f"codec {codec} is unknown"):
            use(codec)


@pytest.mark.parametrize("codec", ["snappy", "zstd"])
def test_without_its_library_a_codec_names_the_command_that_installs_it(codec, monkeypatch):
    block = compress(CODECS[codec], TEXT)
    monkeypatch.setitem(sys.modules, "cramjam", None)
    for use in (check_codec, lambda c: compress(c, b"x"), lambda c: decompress(c, block, bytes_max=MIB)):
        with pytest.raises(UnsupportedCodecError, match=rf"codec {codec} .*pip install pylog-storage\[codecs\]"):
            use(CODECS[codec])


@pytest.mark.parametrize("codec", ["none", "gzip", "lz4"])
def test_the_other_codecs_need_no_extra(codec, monkeypatch):
    monkeypatch.setitem(sys.modules, "cramjam", None)
    check_codec(CODECS[codec])
    assert unpack(codec, compress(CODECS[codec], TEXT)) == TEXT


def test_importing_costs_no_cramjam():
    script = "import sys, pylog._compression; sys.exit('cramjam' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
