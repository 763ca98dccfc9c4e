"""Run untrusted code once, in a sandbox that is gone afterwards."""

import sys

import blink


def main() -> None:
    # "auto" takes the strongest isolation that works here, and the output says which that was.
    output = blink.run_code("print(sum(range(10)))", timeout=10, isolation="auto")
    print(f"it printed {output.text.strip()}, isolated by {output.isolation}")

    # What goes wrong inside is no exception, until it is asked for.
    output = blink.run(["sh", "-c", "echo working; sleep 60"], timeout=0.5, isolation="auto")
    try:
        output.check()
    except blink.ExecTimeout as error:
        print(f"{error}; until then it had written {output.text!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
