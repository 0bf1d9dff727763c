"""Typed options of an experiment, read from YAML and the command line, and checked before any work starts.

In: files in configs/ and command-line arguments. Out: one frozen `Config`, or an `InputError` that names the option.
"""
