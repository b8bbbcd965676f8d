"""Files of MP4, AAC and WebM, made by PyAV, and their boxes put together by hand."""

import io
import struct
from collections.abc import Callable, Mapping
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def encode(
    samples: Samples,
    rate: int,
    container: str = "mp4",
    codec: str = "aac",
    tags: Mapping[str, str] | None = None,
    tracks: int = 1,
    **options: str,
) -> bytes:
    """The samples, shape (frames, channels), in a container and codec by FFmpeg's names, in so many equal tracks."""
    memory = io.BytesIO()
    with av.open(memory, "w", format=container, options={"strict": "experimental", **options}) as file:
        file.metadata.update(tags or {})
        streams = [file.add_stream(codec, rate=rate, layout=_LAYOUTS[samples.shape[1]]) for _ in range(tracks)]
        for stream in streams:
            for start in range(0, len(samples), 1024):
                part = np.ascontiguousarray(samples[start : start + 1024]).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(part, format="s16", layout=stream.layout.name)
                frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return memory.getvalue()


def box(name: bytes, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I", 8 + len(body)) + name + body


def boxes(content: bytes) -> list[tuple[bytes, bytes]]:
    """Name and body of each box."""
    found, start = [], 0
    while start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        found.append((content[start + 4 : start + 8], content[start + 8 : start + size]))
        start += size
    return found


def rebuilt(content: bytes, path: str, change: Callable[[bytes], bytes]) -> bytes:
    """The boxes with the body of each one at `path` (`moov/trak/mdia`) changed, and all sizes around it."""
    first, _, rest = path.partition("/")
    return b"".join(
        box(name, body if name.decode("latin-1") != first else rebuilt(body, rest, change) if rest else change(body))
        for name, body in boxes(content)
    )
