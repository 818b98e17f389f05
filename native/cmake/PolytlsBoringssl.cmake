# BoringSSL from the cache that boringssl/prepare.py keeps, as imported targets.

function(polytls_provide_boringssl)
  set(directory "${CMAKE_CURRENT_SOURCE_DIR}/boringssl")
  set(command "${Python_EXECUTABLE}" "${directory}/prepare.py"
      --cc "${CMAKE_C_COMPILER}" --cxx "${CMAKE_CXX_COMPILER}" --cmake "${CMAKE_COMMAND}")
  if(CMAKE_GENERATOR MATCHES "Ninja")
    list(APPEND command --ninja "${CMAKE_MAKE_PROGRAM}")
  endif()
  if(POLYTLS_SANITIZE)
    list(APPEND command --sanitize "${POLYTLS_SANITIZE}")
  endif()
  # Progress goes to standard error and is shown as it comes; the answer alone is kept.
  execute_process(COMMAND ${command}
    OUTPUT_VARIABLE library OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "BoringSSL could not be provided; the reason is in the line `polytls: error:` above.")
  endif()

  # A changed pin, patch or source list asks for another library.
  file(GLOB inputs CONFIGURE_DEPENDS "${directory}/patches/*.patch" "${directory}/provision/*.py")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${inputs}
    "${directory}/requirements.txt" "${directory}/CMakeLists.txt" "${directory}/prepare.py"
    "${library}/lib/libcrypto.a")

  foreach(name crypto ssl)
    add_library(boringssl::${name} STATIC IMPORTED GLOBAL)
    set_target_properties(boringssl::${name} PROPERTIES
      IMPORTED_LOCATION "${library}/lib/lib${name}.a"
      INTERFACE_INCLUDE_DIRECTORIES "${library}/include")
  endforeach()
  set_property(TARGET boringssl::crypto APPEND PROPERTY INTERFACE_LINK_LIBRARIES Threads::Threads)
  set_property(TARGET boringssl::ssl APPEND PROPERTY INTERFACE_LINK_LIBRARIES boringssl::crypto)

  # BoringSSL is inside the wheel, so its licence is as well.
  if(DEFINED SKBUILD_METADATA_DIR AND EXISTS "${library}/source/LICENSE")
    install(FILES "${library}/source/LICENSE"
      DESTINATION "${SKBUILD_METADATA_DIR}/licenses" RENAME LICENSE.boringssl)
  endif()
endfunction()
