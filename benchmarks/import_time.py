"""What `import llama_index_resilient_stream` costs beside LlamaIndex's own import.

    python benchmarks/import_time.py                      # 9 fresh interpreters, about half a minute
    python benchmarks/import_time.py --quick              # 3
    python benchmarks/import_time.py --most-of-core 0.1   # exit with 1 where the median is over a tenth of the core's

Each interpreter imports `llama_index.core` first and this package after it, and tells the CPU seconds of both. The
first interpreter, which writes the bytecode, is not counted. CPU and a ratio: other programs slow both alike. The
garbage collector is off: its next walk over all that the core has made (0.07 s with core 0.10.68) falls to whichever
import happens to come then, and would be counted as that one's own.
Which modules it is spent on: `python -X importtime -c "import llama_index_resilient_stream"`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

MEASURE = """
import gc, time
gc.disable()
began = time.process_time()
import llama_index.core
core = time.process_time()
import llama_index_resilient_stream
print(core - began, time.process_time() - core)
"""


def measured() -> tuple[float, float]:
    """Return the CPU seconds of importing the core, and of this package after it, in a fresh interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True)
    core, ours = map(float, done.stdout.split())
    return core, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three interpreters instead of nine")
    parser.add_argument("--most-of-core", type=float, metavar="SHARE", help="fail over this share of the core's import")
    options = parser.parse_args()

    measured()
    rounds = [measured() for _ in range(3 if options.quick else 9)]
    ours = [each for _, each in rounds]
    share = statistics.median(each / core for core, each in rounds)
    print(f"llama_index.core              {statistics.median(core for core, _ in rounds):.3f} s of CPU")
    print(f"llama_index_resilient_stream  {statistics.median(ours):.3f} s more ({min(ours):.3f} to {max(ours):.3f})")
    print(f"                              {share:.1%} of the core's")
    if options.most_of_core is not None and share > options.most_of_core:
        raise SystemExit(f"That is over {options.most_of_core:.0%}. `python -X importtime` shows what is imported.")


if __name__ == "__main__":
    main()
