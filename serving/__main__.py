from serving.main import main

main()
