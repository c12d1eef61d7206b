qwenbench_library(image
  SOURCES
    image_decode.cpp
    image_orientation.cpp
    image_processor.cpp
    image_resize.cpp
    jpeg_decode.cpp
    png_decode.cpp
    random_image.cpp
  DEPENDS qwenbench::base
  PRIVATE_DEPENDS fmt::fmt PNG::PNG JPEG::JPEG)
