"""What labels key frames: `create` turns a name with options into a teacher.

teacher = ojd.teachers.create("mask_rcnn_tiny", height=192, width=320)
teacher.class_names
"""

from ojd.teachers.base import TEACHERS, Context, Teacher, create, make_teacher

__all__ = ["TEACHERS", "Context", "Teacher", "create", "make_teacher"]
