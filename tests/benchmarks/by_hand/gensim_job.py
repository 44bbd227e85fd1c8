"""Gensim by hand: the script's models are distributed once all that serve them are there.

``NAMES=6 python gensim_job.py SCRIPT``; the name server is where PYRO_NS_HOST says.
"""

import functools
import os
import runpy
import sys
import time

import gensim.models
import Pyro4

with Pyro4.locateNS() as names:
    while len(names.list(prefix="gensim.")) < int(os.environ["NAMES"]):
        time.sleep(0.02)
for name in ("LdaModel", "LsiModel"):
    model = getattr(gensim.models, name)
    model.__init__ = functools.partialmethod(model.__init__, distributed=True)
runpy.run_path(sys.argv[1], run_name="__main__")
