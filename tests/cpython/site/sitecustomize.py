"""Python imports this at its start when its folder is on PYTHONPATH, and so do
the processes it starts. `run` puts it there where it is needed.
"""

import os
import sys

if "_socket" in sys.builtin_module_names:
    # Debian's Python has it inside, and what is inside comes before PYTHONPATH.
    import importlib.machinery

    class Ours:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return importlib.machinery.PathFinder.find_spec(name) if name == "_socket" else None

    sys.meta_path.insert(0, Ours)

if "SOCK_PYTHON_HALF" in os.environ:
    import python_half
