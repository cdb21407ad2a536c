module github.com/sallyport/sallyport/ci/tools

go 1.26.0
