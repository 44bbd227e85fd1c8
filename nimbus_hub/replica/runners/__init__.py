"""Runners: what a framework needs done in a replica's process before user code, and around it.

Python 3.6 and later, standard library and the framework itself only.
"""
