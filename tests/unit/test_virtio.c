/* To be written with its module. */
int main(void)
{
	return 0;
}
