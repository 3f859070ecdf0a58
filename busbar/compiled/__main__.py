"""`python -m busbar.compiled MODULE ARGUMENTS`: `python -m MODULE ARGUMENTS` with the compiled modules."""

from __future__ import annotations

import os
import runpy
import sys

from busbar import compiled

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m busbar.compiled MODULE [ARGUMENTS]")
    os.environ[compiled.VARIABLE] = "1"  # for the processes that it starts, too
    try:
        compiled.use()
    except compiled.Unusable as why:
        sys.exit(f"compiled modules cannot be used: {why}; make them with python -m busbar.compiled.build")
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
