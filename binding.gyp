{
  "targets": [
    {
      "target_name": "borgfs",
      "sources": [
        "native/addon.cc",
        "native/chunker.c",
        "native/chunker_binding.cc",
        "native/openssl.c",
        "native/sha256.c",
        "native/sha256_lanes.c",
        "native/hmac.c",
        "native/pbkdf2.c",
        "native/pbkdf2_binding.cc",
        "native/blake2b.c",
        "native/envelope.c",
        "native/envelope_binding.cc",
        "native/xts.c",
        "native/xts_binding.cc",
        "native/attributes.c",
        "native/files_binding.cc",
        "native/directory_binding.cc",
        "native/pages_binding.cc",
        "native/chunk_rows.c",
        "native/chunk_rows_binding.cc",
        "native/xxh64.c",
        "native/index_binding.cc",
        "native/crc32.c",
        "native/crc32_binding.cc",
        "native/items.c",
        "native/items_binding.cc",
        "native/deletion.c",
        "native/deletion_binding.cc",
        "native/release.c",
        "native/release_binding.cc",
        "native/tree.c",
        "native/tree_binding.cc",
        "native/answers.c",
        "native/answers_binding.cc",
        "native/lz4.c",
        "native/lz4_binding.cc",
        "native/kernel_binding.cc"
      ],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE", "_FILE_OFFSET_BITS=64"],
      "cflags": ["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"],
      "cflags_cc": ["-std=c++17", "-fno-exceptions"]
    }
  ]
}
