"""The benchmarks behind ``normkit bench``: our layers against torch.nn's, and both against a copy of the same bytes.

``cases`` is the table of what is measured and the bars it should reach, ``contenders`` builds what is timed for a row
of it, ``measure`` times, ``runner`` starts a process for each allocator regime, and ``report`` turns results into
tables. ``accuracy``, ``memory``, ``start`` and ``crossover`` each answer one more question.
"""
