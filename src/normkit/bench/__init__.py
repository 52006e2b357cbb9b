"""The benchmarks behind ``normkit bench``: our layers against torch.nn's, and both against a copy of the same bytes.

``cases`` says what a case is, ``table`` lists them all, ``contenders`` builds the calls that are timed for a row,
``measure`` times them, ``runner`` starts a process for each allocator regime, and ``report`` turns results into tables.
``accuracy``, ``memory``, ``start``, ``crossover``, ``sync`` and ``huge_pages`` each answer one more question.
"""
