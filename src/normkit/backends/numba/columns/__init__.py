"""Kernels for short runs: vectors of K·S columns are summed down the R rows, then each statistic folds its S columns.

A tile is a range of columns, a chunk a range of rows. Where a whole tile fits a cache, one task does all of it
(``phase`` 0); where a statistic spans many chunks, three phases sum, merge and normalize (1, 2, 3), and all threads
wait for each other in between. Both orders add the same elements in the same order, so the bits do not depend on the
choice or on the number of threads.

Rows of few columns are read several at a time as one wider row (``fold``): they are contiguous.
"""
