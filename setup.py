"""What the wheel installs: the library, with the jobs and the services inside it, so that it claims one name, `offsft`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["offsft", "offsft.*"]), "offsft.jobs", "offsft.services"],
    package_dir={"offsft.jobs": "jobs", "offsft.services": "services"},
)
