module blink-example

go 1.19
