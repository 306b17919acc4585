"""Kernels of our own for NVIDIA devices, written in Triton, and the layout of steps that uses them.

Owns nothing that other devices need: without Triton, or elsewhere, torch's own operations do the same.
"""
