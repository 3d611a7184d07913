"""One worker process: reads jobs from its standard input, does them, and says how far it is.

Messages are JSON, each after its length in four bytes. The worker's memory is limited, and whoever started it may kill
it at any time: nothing that it holds is needed afterwards.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import struct
import sys
from typing import Any, BinaryIO

_MEMORY = "this needs more memory than the server gives one job; try a smaller table or fewer draws"
_PROGRESS = re.compile(r"\r?(?P<what>[^:\r]+): (?P<done>\d+) of (?P<total>\d+), (?P<left>\d+) s left")


class _Said(io.TextIOBase):
    """A stream that stands for standard error: the progress lines written to it become messages."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if found := _PROGRESS.search(text):
            part = {k: v if k == "what" else int(v) for k, v in found.groupdict().items()}
            send(self._out, {"progress": part})
        return len(text)


def send(out: BinaryIO, message: Any) -> None:
    """One message."""
    body = json.dumps(message, allow_nan=False).encode()
    out.write(struct.pack(">I", len(body)) + body)
    out.flush()


def receive(source: BinaryIO) -> Any:
    """The next message; None at the end."""
    head = source.read(4)
    return json.loads(source.read(*struct.unpack(">I", head))) if len(head) == 4 else None


def limit_memory(size: int) -> None:
    """At most so many bytes of address space, where the system can say so."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def done(job: dict[str, Any]) -> dict[str, Any]:
    """A job's result, or why there is none in one sentence."""
    from isoflop.page import _work

    try:
        return {"done": _work.run(job["do"], job["with"])}
    except MemoryError:
        return {"error": _MEMORY}
    except (ValueError, ImportError, OSError) as error:
        return {"error": _MEMORY if "malloc of size" in str(error) else _sentence(error)}  # as pyarrow says it
    except LookupError as error:
        return {"error": str(error) if type(error) is LookupError else f"this failed in a way that is ours ({error!r})"}
    except RecursionError:
        return {"error": "the file is nested too deeply"}
    except Exception as error:
        return {"error": f"this failed in a way that is ours ({type(error).__name__}: {error})"}


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__


def main() -> None:
    """Take jobs until the input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not stand between messages
    limit_memory(int(sys.argv[1]))
    sys.stderr = _Said(out)
    from isoflop.page import _work  # warm: the first fit need not wait for numpy

    _work.warm()
    send(out, {"ready": True})
    while (job := receive(sys.stdin.buffer)) is not None:
        send(out, done(job))


if __name__ == "__main__":
    main()
