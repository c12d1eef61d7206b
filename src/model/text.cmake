qwenbench_library(text
  SOURCES
    added_tokens.cpp
    bpe.cpp
    chat_template.cpp
    pretokenizer.cpp
    tokenizer.cpp
    tokenizer_file.cpp
    utf8.cpp
  DEPENDS qwenbench::base
  PRIVATE_DEPENDS fmt::fmt nlohmann_json::nlohmann_json PkgConfig::PCRE2 PkgConfig::UTF8PROC)
