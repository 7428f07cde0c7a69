"""Training of a student before any run.

`trainer` trains on batches and resumes, `batches` makes them of synthetic
worlds (an `album` of them) and of COCO, `evaluation` measures what was learnt.
"""
