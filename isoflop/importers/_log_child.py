"""Run as a script: the groups of a pattern, from stdin, in each line of the file that is its argument, as JSON."""

import json
import re
import sys

LONGEST = 4000  # characters of a line; longer ones are no log lines, and slow to search
_MOST = 2_000_000


def main() -> None:
    """Print {"rows": [[group, ...], ...], "lines": n, "long": n}."""
    pattern = re.compile(sys.stdin.buffer.read().decode())
    rows, lines, long = [], 0, 0
    with open(sys.argv[1], encoding="utf-8", errors="replace") as file:
        while line := file.readline(LONGEST + 1):
            lines += 1
            if len(line) > LONGEST and not line.endswith("\n"):
                long += 1
                while (rest := file.readline(1 << 20)) and not rest.endswith("\n"):
                    pass
            elif match := pattern.search(line.rstrip("\r\n")):
                rows.append([match[name] for name in pattern.groupindex])
                if len(rows) > _MOST:
                    sys.exit(f"more than {_MOST} lines match")
    json.dump({"rows": rows, "lines": lines, "long": long}, sys.stdout)


if __name__ == "__main__":
    main()
