"""Kernel ridge regression on the statistics of a frozen backbone: the strong baseline, solved at once.

A photograph becomes mean and standard deviation of the channels of a timm backbone at several depths, of the image
and of the image at half its size. Two regressions look at these, and their mean is the score: a linear one (ridge) and
one with a Gaussian kernel (kernel ridge; Saunders, Gammerman and Vovk, ICML 1998). Nothing is trained by gradients: for
a few thousand rated photographs both are one linear system each, so that a fitting costs one look of the backbone at
each photograph, and seconds. The strength of the regularisation is chosen by folds of whole scenes.

Regression on features of a network that learned to recognise is a known, strong baseline (DeepBIQ: Bianco et al., "On
the use of deep learning for blind image quality assessment", SIViP 2018). Several depths, two sizes and the mean of
both regressions are our own choice; each helped on BIQ2021 (``docs/teachers.md``).
"""

from teachers.kernel_ridge.build import build_kernel_ridge
from teachers.kernel_ridge.teacher import KernelRidgeTeacher

__all__ = ["KernelRidgeTeacher", "build_kernel_ridge"]
