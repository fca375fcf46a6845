from n2kit.testing import VisionSuite


class TestHello(VisionSuite):
    component = "hello:tiny"
