"""Doing again what a trace says, without the program, in a pool and in other allocators."""
