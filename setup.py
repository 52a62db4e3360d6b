"""The packages, of which pyproject.toml could only say: all that are found, or a list of every one.

The folder deploy/ is one under another name: `deploy` would be too general beside other people's packages.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["controller*", "device_agent*"]),
        *find_packages("protos"),
        "edgenas_deploy",
    ]
)
