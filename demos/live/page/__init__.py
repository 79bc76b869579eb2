"""The page of the live demo: the pictures and answers in a browser, and visitors' own cameras."""
