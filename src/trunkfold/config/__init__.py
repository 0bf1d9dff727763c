"""Typed options, parsed from YAML and the command line, and validated before any work starts.

In: files in configs/ and command-line arguments. Out: one frozen `Config`, or an `InputError` that names the option.
"""
