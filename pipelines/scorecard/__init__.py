"""The ML Test Score of a use case: which of the 28 tests of Breck et al. hold, by the last test and pipeline runs."""
