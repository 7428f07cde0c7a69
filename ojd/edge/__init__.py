"""A server that trains and a device that predicts, and what lies between.

Whatever a device needs is numpy alone: neither jax nor torch is imported here.
"""
