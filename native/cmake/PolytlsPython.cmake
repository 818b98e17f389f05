# The Python that runs the build scripts, its headers, and the extension module.

# The oldest Python the module is made for; its limited API keeps one binary good for all newer ones.
set(POLYTLS_SABI_VERSION 3.10)

macro(polytls_find_python)
  if(POLYTLS_PYTHON_MODULE)
    find_package(Python ${POLYTLS_SABI_VERSION} COMPONENTS Interpreter Development.SABIModule)
    if(Python_Interpreter_FOUND AND NOT Python_Development.SABIModule_FOUND)
      message(FATAL_ERROR
        "${Python_EXECUTABLE} comes without its C headers (Python.h); install them "
        "(Debian, Ubuntu: `apt-get install python3-dev`; Fedora: `dnf install python3-devel`).")
    endif()
  else()
    find_package(Python ${POLYTLS_SABI_VERSION} COMPONENTS Interpreter)
  endif()
  if(NOT Python_Interpreter_FOUND)
    message(FATAL_ERROR
      "No Python ${POLYTLS_SABI_VERSION} or newer was found; install one, or name it in Python_EXECUTABLE.")
  endif()
endmacro()

function(polytls_add_python_module)
  set(ffi "${CMAKE_CURRENT_SOURCE_DIR}/ffi")
  set(header "${CMAKE_CURRENT_SOURCE_DIR}/include/polytls/native.h")
  set(generated "${CMAKE_CURRENT_BINARY_DIR}/_native.c")
  add_custom_command(
    OUTPUT "${generated}"
    COMMAND "${Python_EXECUTABLE}" "${ffi}/generate.py" --header "${header}" --output "${generated}"
    DEPENDS "${header}" "${ffi}/generate.py" "${ffi}/declarations.py" "${ffi}/callbacks.txt"
    COMMENT "Generating the Python binding"
    VERBATIM)

  python_add_library(_native MODULE USE_SABI ${POLYTLS_SABI_VERSION} WITH_SOABI "${generated}")
  target_link_libraries(_native PRIVATE polytls_native polytls_options)
  # Generated code is not held to our warnings.
  set_source_files_properties("${generated}" PROPERTIES COMPILE_OPTIONS "-w")
  # C++ is inside, whatever language the binding itself is in.
  set_target_properties(_native PROPERTIES LINKER_LANGUAGE CXX)

  # One symbol leaves the module. The process may hold three other TLS libraries with the same names.
  if(APPLE)
    target_link_options(_native PRIVATE -Wl,-dead_strip -Wl,-exported_symbol,_PyInit__native)
  else()
    set(exports "${ffi}/exports.map")
    target_link_options(_native PRIVATE
      -Wl,--gc-sections -Wl,--exclude-libs,ALL -Wl,-z,relro,-z,now
      "-Wl,--version-script=${exports}")
    set_target_properties(_native PROPERTIES LINK_DEPENDS "${exports}")
  endif()

  install(TARGETS _native LIBRARY DESTINATION polytls/engine)
  if(POLYTLS_DEVELOPMENT)
    set_target_properties(_native PROPERTIES
      LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/../polytls/engine")
  endif()
endfunction()
