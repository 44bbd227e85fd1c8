"""Makes `nimbus_hub.distributed` and `nimbus_hub.replica` importable in every environment.

The directory above is on the search path of replicas, whose environment may know nothing of
this package: it is the same package, found through the files of the one that started them.
"""

# ruff: noqa: PTH100, PTH118, PTH120, PTH123

import os

__path__ = [os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))]

with open(os.path.join(__path__[0], "__init__.py"), encoding="utf-8") as _file:
    exec(compile(_file.read(), _file.name, "exec"))
