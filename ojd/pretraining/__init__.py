"""Trains a student on batches of labeled frames, before any run.

`trainer` trains and resumes. `batches` makes the batches, from synthetic worlds
or from COCO. `album` draws the worlds, and evaluates a student on new ones.
`data_parallel` trains on several devices and hosts.
"""
