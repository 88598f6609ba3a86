"""The lessons, one script each; installed as ``gpt_numpy.study.lessons``. ``gpt-numpy study lesson 04`` opens one."""
