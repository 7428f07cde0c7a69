"""Who labels key frames; `base.make_teacher` turns a name into a Teacher."""
