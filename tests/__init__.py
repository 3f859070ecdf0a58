"""All tests. They run on the plain modules, and so do the processes that they start, unless somebody says otherwise.

`python -m busbar.compiled pytest ...` is the same on the compiled ones.
"""

import os

from busbar import compiled

os.environ.setdefault(compiled.VARIABLE, "0")
